"""The parts of the fault campaign: servers that misbehave, a proxy, a worker with trace points, and the rows."""
