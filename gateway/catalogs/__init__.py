"""What is served: the shape of a catalog, how its YAML is read, and the two catalogs that come with the gateway."""
