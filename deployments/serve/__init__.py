"""What runs under Ray Serve: who watches the requests of an ingress, and one scrape of all processes."""
