"""What an operator sees: the catalogue of metrics, snapshots, logs. Nothing here decides anything."""
