"""qaq: choose code-instruction data by how well the answer predicts the question."""

__version__ = "0.1.0"
