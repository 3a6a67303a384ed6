"""Write the status of policies, computed from the reports of the agents."""
