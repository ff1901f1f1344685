"""What `cluster/` holds, checked without a cluster."""
