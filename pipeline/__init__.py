"""The product: pipe.yaml, plans, runs, deploys, and the `pipe` command."""
