"""`anyipd-neighbour`: answers Neighbor Solicitations for bound subnets that are on-link at their router."""
