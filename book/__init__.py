"""How the book and the slides are made out of docs/ and the lectures; their readers need none of this."""
