"""Requests and answers: the JSON schema, the binary frames and the OpenAPI document."""
