"""MLflow, promotion, monitoring: what is tracked, registered, served and monitored."""
