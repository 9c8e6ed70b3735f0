"""What our sales team wants to happen when something happens to a lead."""
