"""Runs the gateway and its replicas under Ray Serve. Only this package imports Ray.

`punctual serve` calls `keeping`, which runs `command` in a process of its own and clears what it leaves; `serving`
starts and stops a gateway on one host, in the environment that `environment` sets up. `kubernetes` builds the same
application for KubeRay. `graph` describes its deployments to Ray Serve, `applications` has their classes, and
`autoscaling` decides how many replicas there should be. `discovery` asks Ray Serve for replicas and states, with the
time limits of `asking`. `scraping` gathers the metrics of all processes. `late` takes in checkpoints that come later
than the gateway. `observing` opens the access log and traces of an ingress. `standing_in` answers at the port while no
ingress does.
"""
