"""What an operator runs: image, Compose, Kubernetes, nginx, monitoring; faults under load."""
