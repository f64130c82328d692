"""Speed, as ratios: every figure of ours stands beside a peer's from the same run."""
