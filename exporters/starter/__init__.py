"""The starter checkpoints: two sentiment classifiers anyone can rebuild from public package registries."""
