"""All replicas: changes that touch several, what a killed service left, the view to route by."""
