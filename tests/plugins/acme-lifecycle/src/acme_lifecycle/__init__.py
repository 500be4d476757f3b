"""What invoices and teams of Acme mean to Meisa."""
