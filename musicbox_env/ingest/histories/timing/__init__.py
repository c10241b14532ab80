"""When plays were: their times, the rows that tell one play, and the players they ran on."""
