"""Standard scores of the models, set beside what they represent."""
