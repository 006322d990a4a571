"""Ray Serve: applications, their graph, discovery, scaling and scraping. The only package that imports Ray."""
