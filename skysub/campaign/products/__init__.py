"""Kinds of products: how each lies in the store, and how it is made, read, checked and exported."""
