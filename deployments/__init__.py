"""Deployments: runs the gateway and its replicas on a cluster.

`serve` wires everything and is the only part that imports Ray. `transport` carries requests between a gateway and its
replicas. `replica` batches requests and answers them, with one module for each kind of variant. `engines` run variants.
"""
