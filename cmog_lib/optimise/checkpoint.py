"""Where `classroom.course` looks for a checkpoint."""

from cmog_lib.engine.optimise.checkpoint import Checkpoint as Checkpoint
