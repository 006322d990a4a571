"""The HTTP edge: the application, request headers and bodies in, responses and problems out."""
