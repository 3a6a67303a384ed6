"""Define and parse the documents of the API: policies, pods, enforcement mode, and node reports."""
