"""What the library costs beside its peers: `make bench`; a row of the table is a module here, see `harness`."""
