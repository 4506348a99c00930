"""The JSON documents that stages write and others read: one pydantic model a file."""
