"""Where it runs: an MLflow service for a team, machines, manifests."""
