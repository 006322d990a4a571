"""Published policies, each in the frame of `loadtests.simulator.central`, as strong as its paper allows."""
