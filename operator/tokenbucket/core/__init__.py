"""The pure core: from documents to a plan. Nothing here does input or output."""
