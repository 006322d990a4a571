"""What is served: the fields of a catalog, how its YAML is read, and the two catalogs that come with the gateway."""
