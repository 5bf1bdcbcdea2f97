"""Delta Lake tables, and what goes into their columns: the only home of deltalake and pyarrow."""
