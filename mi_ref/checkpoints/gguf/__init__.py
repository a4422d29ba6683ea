"""Models in GGUF, llama.cpp's file format: their configs, tensors and tokenizers."""
