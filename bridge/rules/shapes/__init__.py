"""What values may be by a topic's schema, and whether the rules' expressions fit: no event is needed to know.

schema → Shape (json_schema.py, avro.py) → what each event looks like (events.py)
expression + Shape → notes (walk.py) → problems with their places (fields.py)
"""
