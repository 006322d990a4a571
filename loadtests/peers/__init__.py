"""What the gateway is raced against, and the gateway itself, each as a program of its own."""
