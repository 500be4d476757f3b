"""The adapter of a schema registry: Confluent's HTTP API, which Karapace, Apicurio and others speak too."""
