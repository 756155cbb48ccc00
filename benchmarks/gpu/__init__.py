"""On a rented GPU: training within a time limit, and the job itself with its benchmarks."""
