"""What is said about a result beside the result: provenance and bills of material, as in-toto statements (B-15 … B-17)."""
