"""What every validation shares, with torch as the reference and without it: who is compared, and the verdicts."""
