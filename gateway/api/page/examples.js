// Ready texts to try, by task. Written for this page.

export const EXAMPLES = {
  classify: [
    { name: "One line", text: "What a wonderful film." },
    {
      name: "Mixed feelings",
      text:
        "The camera work is lovely and the first hour flies by, but then the story forgets where it was going and " +
        "the ending left me cold.",
    },
    {
      name: "A long review",
      text: [
        "I went in expecting very little. The trailer had shown me a film that I had already seen three times,",
        "and the poster promised a fourth. For twenty minutes it kept that promise: a city at night, a detective",
        "who drinks, a voice that explains what the pictures show. Then the old woman opens the door, and it",
        "becomes something else. She does not weep, she does not confess; she offers him soup, and while he eats",
        "it she tells him, in passing, everything he came to find out. The scene lasts eleven minutes and has no",
        "music. I have not seen its like in years. What follows is uneven. The chase through the market is shot",
        "so nervously that I lost count of who was running from whom, and the brother's return is a coincidence",
        "that not even the actors seem to believe. But the film has earned patience by then, and it repays it:",
        "the last shot, of the empty kitchen with two bowls on the table, says more about grief than most films",
        "manage in two hours. I walked home instead of taking the tram. It is not a perfect film. It is a",
        "generous one, which is rarer, and I would gladly see it again tomorrow.",
      ].join(" "),
    },
  ],
  summarize: [
    {
      name: "A night train",
      text: [
        "The night train between the two capitals is to run again from December, eleven years after it was given",
        "up. The operator has bought twelve used sleeping cars and had them rebuilt, with smaller compartments,",
        "showers in every second car and racks for bicycles. Demand had never quite gone away, said the head of",
        "the long-distance division; what had gone was the patience of accountants with cars that stand idle by",
        "day. This time the sleeping cars will be coupled to regional services in the morning hours, so that they",
        "earn money on both ends. A seat is to cost from 39 euros, a place in a compartment for four from 69, and",
        "a compartment of one's own from 159. Environmental groups welcomed the plan but criticised the price of",
        "single compartments. The association of passengers asked above all for reliability: on the southern",
        "line, which was reopened two years ago, every fifth train arrives more than an hour late, mostly because",
        "of works on the track. The operator promised to hold connecting trains, and to pay for a taxi where that",
        "fails.",
      ].join(" "),
    },
    {
      name: "A software package",
      domain: "software",
      text:
        "libzc is a fast, portable and high-quality zip password cracking library. It is entirely written in C and " +
        "does not depend on other libraries. It offers brute force, dictionary and known plaintext attacks, uses " +
        "several threads where the machine has them, and comes with a small command line tool that shows how the " +
        "library is used. This package contains the development files.",
    },
    {
      name: "Meeting notes",
      text: [
        "We met on Tuesday to look at the outage of the week before. The cause is known by now: a certificate of",
        "the message broker had expired, and the reminder for it went to a person who left in spring. The broker",
        "itself kept running, so that the health checks stayed green, but no new connection could be made, and",
        "each restart of a service made things worse. It took fifty minutes until somebody looked at the right",
        "log. We agreed on three things. Certificates are renewed by a job from now on, and the job's failure",
        "pages whoever is on duty. Health checks open a fresh connection instead of trusting an old one. And",
        "reminders go to the team's address, never to a person. The second point needs care, since a check that",
        "connects every second is a load of its own; Mara will measure it. We also asked ourselves why three",
        "people restarted services without saying so in the channel. There was no good answer, and we would",
        "rather have an easy way to say it than a rule that demands it.",
      ].join(" "),
    },
  ],
};
