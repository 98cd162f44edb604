"""What a campaign made, to look at: one HTML file with pictures, distributions, failures and costs."""
