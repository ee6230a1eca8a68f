"""What tests use: servers, proxies, clients, faults."""
