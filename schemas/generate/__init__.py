"""Everything in schemas/ is made from catalogue.yaml by `python -m schemas.generate`.

| module | makes |
|---|---|
| `catalogue` | the values that all others read, from the YAML; what is wrong there is told with its place |
| `avro`, `json_schema`, `asyncapi`, `readme` | one kind of output each, pure |
| `compatibility` | what may change in a released schema, and what has |
| `files` | which files there are, which of them are not current, releases |
"""
