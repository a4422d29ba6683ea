"""Text to token ids and back: tokenizers, chats, prompts, padding."""
