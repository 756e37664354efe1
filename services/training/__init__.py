"""What all trainings share: configurations, devices, the loop, run folders, training sets. Serving never imports this package."""
