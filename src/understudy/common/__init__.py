"""What every package uses: JSON, progress, errors, statistics, sockets."""
