"""The Chatterbox model: weights, voice, and the Blackwell work-around."""
