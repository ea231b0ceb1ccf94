"""What every settings model is made of: number types with ranges, and the reader of their files."""
