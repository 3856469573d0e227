"""``python -m understudy.documents``: generate the schemas of the documents from their models."""

from understudy.documents.generate import write_schemas

write_schemas()
