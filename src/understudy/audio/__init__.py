"""PCM, WAV, speech checks and signal measures."""
