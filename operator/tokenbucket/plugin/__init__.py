"""The kubectl plugin. It talks to the API server only, with the rights of its user."""
