"""What tasks on trajectories share: a latent state, models of what an action does to it, panels of transitions."""
