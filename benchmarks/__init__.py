"""What memedit costs and how well it does; each module prints one table. Run with ``python -m benchmarks``."""
